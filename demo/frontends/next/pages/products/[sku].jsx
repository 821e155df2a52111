import Link from 'next/link';
import { useRouter } from 'next/router';

const ask = async (address, what) => {
	const answer = await fetch(address, {
		method: 'POST',
		credentials: 'include', // else no cookie of the API goes with it
		headers: { 'content-type': 'application/json' },
		body: JSON.stringify(what),
	});
	return answer.json();
};

export default function Product({ api, sku }) {
	const router = useRouter();
	const order = async event => {
		event.preventDefault();
		const { order } = await ask(`${api}/orders`, { sku, email: event.target.email.value });
		router.push(`/thanks/${order}`);
	};
	return (
		<>
			<h1>{sku}</h1>
			<button id="cart" onClick={() => ask(`${api}/cart`, { sku })}>Put into the cart</button>
			<button id="contact" data-capi-event="Contact">Ask about it</button>
			<form onSubmit={order}>
				<input name="email" type="email" defaultValue="jane@example.com" />
				<button id="order">Buy it</button>
			</form>
			<Link id="home" href="/">All tea things</Link>
		</>
	);
}

// The address of the API is read when a page is asked for.
export const getServerSideProps = ({ params }) => ({
	props: { api: process.env.API, sku: params.sku },
});
