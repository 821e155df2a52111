import Link from 'next/link';

export default function Home() {
	return (
		<ul>
			{['kettle', 'cup'].map(sku => (
				<li key={sku}><Link id={sku} href={`/products/${sku}`}>{sku}</Link></li>
			))}
		</ul>
	);
}

// The address of the API is read when a page is asked for.
export const getServerSideProps = () => ({ props: {} });
